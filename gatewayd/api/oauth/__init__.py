"""OAuth 2.0: tokens for programs, and what others need to verify them."""
