"""The order of things: @flow functions."""
