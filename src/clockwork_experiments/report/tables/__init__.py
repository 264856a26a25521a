"""Tables: one kind of table, and a module for each thing that fills one."""
