"""Push rules: the predefined ones, a user's own, their evaluation, and the unread counts that follow from them."""
