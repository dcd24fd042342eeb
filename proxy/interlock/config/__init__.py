"""interlock.yaml: strict models, one file a section, and the loader.

Secrets are never in the file: references lead to them (interlock.references), and a configuration gives those to its readers.
"""

from interlock.config.channels import SlackConfig, TeamsConfig
from interlock.config.file import load, parse
from interlock.config.identity import Issuer, LoginConfig, OidcClient, SshCaConfig, Workload
from interlock.config.listen import Tls
from interlock.config.targets import Credentials, TargetConfig
from interlock.config.values import is_loopback, split_address
from interlock.config.whole import CaKey, Config, Node, VaultConfig
from interlock.references import Secret, SecretRef, VaultRef

__all__ = [
    "CaKey",
    "Config",
    "Credentials",
    "Issuer",
    "LoginConfig",
    "Node",
    "OidcClient",
    "Secret",
    "SecretRef",
    "SlackConfig",
    "SshCaConfig",
    "TargetConfig",
    "TeamsConfig",
    "Tls",
    "VaultConfig",
    "VaultRef",
    "Workload",
    "is_loopback",
    "load",
    "parse",
    "split_address",
]
