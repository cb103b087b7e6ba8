"""People and their sessions: registration, login, tokens, devices, profiles, account data, deactivation."""
