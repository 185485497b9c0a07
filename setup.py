"""The packages of the import package parsecrl: the root, every folder with code or specs in the four rooms, agents."""

from setuptools import find_namespace_packages, setup

ROOMS = find_namespace_packages(
    include=[f"{room}{below}" for room in ("algorithms", "envs", "platform", "tune_specs") for below in ("", ".*")],
    exclude=["*__pycache__*"],
)

# The name keeps this file out of the package: its folder is the root.
setup(script_name="setup.py", packages=["parsecrl", *(f"parsecrl.{room}" for room in [*ROOMS, "pretrained"])])
