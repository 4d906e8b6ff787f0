"""The ux4iot API: sessions, grants, live data, twins and direct methods."""
