"""Files of any known kind to conversations in one order of turns."""
