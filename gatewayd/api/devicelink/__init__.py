"""DeviceLink: raw TCP and UDP links to devices, opened and closed over REST."""
