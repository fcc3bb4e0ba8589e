"""Other job queues, each at its best setting, with the same jobs on the same machine in the same round."""
