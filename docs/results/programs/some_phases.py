"""The spec parsimony_sac with the phases that the argument names, separated by commas."""

import sys

import yaml

from parsecrl.platform.specs import dump, load_spec

spec = yaml.safe_load(dump(load_spec("parsimony_sac")))
spec["phases"] = [phase for phase in spec["phases"] if phase["name"] in sys.argv[1].split(",")]
print(yaml.safe_dump(spec))
