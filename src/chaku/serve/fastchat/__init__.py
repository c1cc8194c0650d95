"""FastChat's controller: its model workers join here, and its servers find chaku's models here."""
