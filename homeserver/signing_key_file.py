"""The server's signing key on disk: read at every start, made at the first.
"""

import os
from pathlib import Path

from nacl.signing import SigningKey as Ed25519Key

from config.errors import ConfigError
from config.schema import Config
from federation.rules.signing import SigningKey, key_id_of, read_signing_keys, write_signing_keys

SIGNING_KEY = "signing.key"
"""The file's name in the data directory."""


def signing_keys_of(config: Config, directory: Path) -> list[SigningKey]:
    """The keys of the file that the configuration names, or of the data directory's own, made at the first start."""
    path = Path(config.signing_key_path) if config.signing_key_path else directory / SIGNING_KEY
    if path.exists():
        try:
            keys = read_signing_keys(path.read_text("ascii"), config.server_name)
        except (ValueError, OSError) as problem:
            raise ConfigError([f"The signing key {path} cannot be read: {problem}"]) from problem
        if not keys:
            raise ConfigError([f"No signing key in {path}: restore it, or delete the file to start with a new one"])
        return keys
    if config.signing_key_path:
        raise ConfigError([f"signing_key_path: {path} does not exist; leave the setting out to have a key made"])
    seed = os.urandom(32)
    key = SigningKey.from_seed(seed, config.server_name, key_id_of(bytes(Ed25519Key(seed).verify_key)))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(write_signing_keys([key]))
        out.flush()
        os.fsync(out.fileno())
    return [key]
