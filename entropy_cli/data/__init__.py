"""Reading image folders, as they are or in tars."""
