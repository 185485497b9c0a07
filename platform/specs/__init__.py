"""Spec files: read, override, check, print."""

from parsecrl.platform.specs.chains import Chain, chains_of, has_chains, one_of_each_variant, plan_rows
from parsecrl.platform.specs.dotted_keys import differences, get_path, set_path
from parsecrl.platform.specs.phases import PhaseBase as Phase
from parsecrl.platform.specs.reading import bundled_specs, dump, load_spec, parse_spec
from parsecrl.platform.specs.spec import Spec

__all__ = [
    "Chain",
    "Phase",
    "Spec",
    "bundled_specs",
    "chains_of",
    "differences",
    "dump",
    "get_path",
    "has_chains",
    "load_spec",
    "one_of_each_variant",
    "parse_spec",
    "plan_rows",
    "set_path",
]
