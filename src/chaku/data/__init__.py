"""Raw shared conversations to training rows that can be audited. Knows no network and never imports torch."""
