"""What a line must do for one product: its views, models, rule, outputs and takt, as one typed YAML file."""
