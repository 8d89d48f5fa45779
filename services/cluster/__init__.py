"""A cluster of many machines: the operator's settings, the files rendered from them, and what its head runs.

settings    the operator's settings, their checks, and `ClusterError`
render      deploy/*.yaml and the settings as a cluster file and the folder that every node gets
kubernetes  deploy/kubernetes/*.yaml and the settings as manifests
head        on the head: MLflow, the scheduler and the gateway on a running Ray
serve       in Kubernetes: the applications that KubeRay's Serve configuration names
cache       on every node: the bases' weights in its cache
backup      the registry in a folder, and back

The commands are in `services.cli.cluster`.
"""
