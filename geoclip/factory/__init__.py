"""Configuration -> object. The only package below the commands that imports `geoclip.config`."""
