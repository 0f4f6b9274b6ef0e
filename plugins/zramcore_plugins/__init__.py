"""The built-in plugins of zramcore, registered through the same hooks as anyone's."""
