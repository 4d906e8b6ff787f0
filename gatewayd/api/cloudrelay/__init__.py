"""Cloud Relay: HTTP requests that are carried to devices, and their answers back."""
