"""The cloud tier: full models, on a GPU where there is one."""
