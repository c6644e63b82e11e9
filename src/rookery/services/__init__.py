"""One file per thing people do. Services decide who may act and order the steps; what they need comes by the ports."""
