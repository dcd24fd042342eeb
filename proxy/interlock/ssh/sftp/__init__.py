"""SFTP: an SFTP server towards the client, an SFTP client towards the target, and the gate between them."""
