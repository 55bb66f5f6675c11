"""The rclone proxy in front of Ceph's RADOS gateway, a distributed store as it exists: `make test-ceph`."""
