"""What the ``gatewayd`` command does over the REST APIs of a running gateway."""
