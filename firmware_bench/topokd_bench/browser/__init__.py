"""The phone's browser as a target: a page served once, and the one result that it posts back."""

TARGET = "browser"
