"""The tools of `toolGroups/builtin`, one noun a module."""
