"""From a YAML file to checked, typed stages; every complaint with its place."""
