"""The whole shell under one seed: crashes between any two steps, a bad network, a bad disk, people, and time for free."""
