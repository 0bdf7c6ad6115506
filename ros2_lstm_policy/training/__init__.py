"""The offline half: the same policy trained with the same losses."""
