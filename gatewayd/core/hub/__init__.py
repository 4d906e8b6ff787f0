"""The hub: what is known of devices between their messages, and what is asked of them."""
