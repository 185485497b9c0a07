"""Spec files: read, override, check, print."""

from parsecrl.platform.specs.dotted_keys import differences, get_path, set_path
from parsecrl.platform.specs.phases import PhaseBase as Phase
from parsecrl.platform.specs.reading import bundled_specs, dump, load_spec, parse_spec
from parsecrl.platform.specs.spec import Spec

__all__ = ["Phase", "Spec", "bundled_specs", "differences", "dump", "get_path", "load_spec", "parse_spec", "set_path"]
