"""Networks as graphs: operations on named values, their table, their rules of shapes, and their files."""
