"""What files of a format need of a runtime: one module per format, each ends in `REQUIREMENT: ReadRequirements`."""
