"""Graphs by hand: every operation forward, backward and along a tangent, one file for each kind of operation."""
