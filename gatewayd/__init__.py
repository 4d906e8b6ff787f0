"""One Twisted daemon through which applications reach devices, whichever device cloud they were written for."""

__version__ = "0.1.0"
