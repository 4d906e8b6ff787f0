"""Moving what another server keeps into a gateway's store."""
