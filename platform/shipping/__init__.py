"""What goes to other machines: code of users' own as wheels, and no secrets."""
