"""A kind of input that graftax does not have, as a stranger adds it: tables of numbers, in a family, a processor and a task."""
