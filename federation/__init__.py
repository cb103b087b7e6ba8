"""What two homeservers must agree on: the rules of Matrix, and the wire between servers."""
