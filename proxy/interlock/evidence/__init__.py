"""What happened, so that somebody who does not trust us can check it."""
