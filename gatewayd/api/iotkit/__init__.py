"""The iotkit API: echo-protocol sockets and the REST around them."""
