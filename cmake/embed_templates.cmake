# Placeholder until the templates are embedded.
