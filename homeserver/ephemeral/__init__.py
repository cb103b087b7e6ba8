"""What is true for a while: presence, typing and read receipts."""
