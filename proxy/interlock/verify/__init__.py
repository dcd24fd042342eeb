"""Checks a bundle without trusting who made it: the standard library, `ssh-keygen` and
`openssl`, nothing else of this project.

`python -m interlock.verify BUNDLE… [--trust DIR]`; the folder also runs alone, copied to a machine without us.
What is checked, and what it means, is docs/evidence/verify.md.
"""

from interlock.verify.bundle import verify_bundle, verify_bundles
from interlock.verify.finding import Problem, Released, Report

__all__ = ["Problem", "Released", "Report", "verify_bundle", "verify_bundles"]
