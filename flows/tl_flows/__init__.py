"""The application: flows, data versioning and the `tl` command."""
