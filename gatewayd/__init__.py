"""A daemon through which applications reach devices, whichever cloud they were written for."""

__version__ = "0.1.0"
