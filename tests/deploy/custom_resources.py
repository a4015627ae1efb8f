"""Custom resources, strictly: an API server refuses what their definitions do not know, or drops it without a word.

Fields and their kinds are those of KubeRay 1.7.0 (all of a RayService's own), and those used here of Gateway API v1,
Envoy Gateway v1alpha1 (and what load balancers of clouds take) and the Prometheus operator's v1; look a further one up
there before it is added.
"""

# ruff: noqa: N815 (the fields bear the names that Kubernetes gives them)

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .manifests import DURATION, Object

__all__ = ["KINDS", "problems"]

Core = dict[str, Any]  # of Kubernetes itself, whose own schemas check it
Names = dict[str, str]
Count = Annotated[int, Field(ge=0)]
Duration = Annotated[str, Field(pattern=DURATION)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AutoscalerOptions(Strict):
    args: list[str] = []
    command: list[str] = []
    env: list[Core] = []
    envFrom: list[Core] = []
    idleTimeoutSeconds: Count = 60
    image: str = ""
    imagePullPolicy: str = ""
    resources: Core = {}
    securityContext: Core = {}
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] = "Default"
    version: Literal["v1", "v2"] = "v1"
    volumeMounts: list[Core] = []


class AuthOptions(Strict):
    enableK8sTokenAuth: bool = False
    mode: Literal["disabled", "token"] = "disabled"
    secretName: str = ""


class SecretKey(Strict):
    key: str
    name: str = ""
    optional: bool = False


class ValueFrom(Strict):
    secretKeyRef: SecretKey  # a password comes from nowhere else here


class Credential(Strict):
    valueFrom: ValueFrom


class GcsFaultToleranceOptions(Strict):
    backend: Literal["redis", "rocksdb"] = "redis"
    externalStorageNamespace: str = ""
    redisAddress: str = ""
    redisPassword: Credential | None = None
    redisUsername: Credential | None = None
    storage: dict[str, Any] = {}


class Pod(BaseModel):  # what is looked for in it before Kubernetes' own schema is asked
    containers: Annotated[list[Core], Field(min_length=1)]


class Template(Strict):
    metadata: Core = {}
    spec: Pod


class Service(BaseModel):
    metadata: Core = {}


class HeadGroup(Strict):
    enableIngress: bool = False
    headService: Core = {}
    ingressOptions: dict[str, Any] = {}
    labels: Names = {}
    rayStartParams: Names = {}
    resources: Names = {}
    serviceType: str = ""
    template: Template


class WorkerGroup(Strict):
    groupName: str
    idleTimeoutSeconds: Count = 60
    labels: Names = {}
    maxReplicas: Count = 2**31 - 1
    minReplicas: Count = 0
    numOfHosts: Count = 1
    priority: int = 0
    rayStartParams: Names = {}
    replicas: Count = 0
    resources: Names = {}
    scaleStrategy: dict[Literal["workersToDelete"], list[str]] = {}
    suspend: bool = False
    template: Template


class RayCluster(Strict):
    authOptions: AuthOptions = AuthOptions()
    autoscalerOptions: AutoscalerOptions = AutoscalerOptions()
    enableInTreeAutoscaling: bool = False
    gcsFaultToleranceOptions: GcsFaultToleranceOptions = GcsFaultToleranceOptions()
    headGroupSpec: HeadGroup
    headServiceAnnotations: Names = {}
    historyServerOptions: dict[str, Any] = {}
    managedBy: str = ""
    networkPolicy: dict[str, Any] = {}
    rayVersion: str = ""
    suspend: bool = False
    tlsOptions: dict[Literal["enabled"], bool] = {}
    upgradeStrategy: dict[Literal["type"], Literal["Recreate", "None"]] = {}
    workerGroupSpecs: list[WorkerGroup] = []


class ClusterUpgradeOptions(Strict):
    gatewayClassName: str
    intervalSeconds: int
    maxSurgePercent: int = 100
    stepSizePercent: int


class UpgradeStrategy(Strict):
    clusterUpgradeOptions: ClusterUpgradeOptions | None = None
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"


class RayService(Strict):
    deploymentUnhealthySecondThreshold: Count = 0
    excludeHeadPodFromServeSvc: bool = False
    managedBy: str = ""
    rayClusterConfig: RayCluster
    rayClusterDeletionDelaySeconds: Count = 60
    serveConfigV2: str = ""
    serveService: Service = Service()
    serviceUnhealthySecondThreshold: Count = 0
    suspend: bool = False
    upgradeStrategy: UpgradeStrategy = UpgradeStrategy()


class Reference(Strict):
    group: str = ""
    kind: str = ""
    name: str = ""
    port: int | None = None
    sectionName: str = ""


class ListenerTls(Strict):
    mode: Literal["Terminate"]  # who passes TLS through cannot ask for keys
    certificateRefs: list[Reference]


class AllowedRoutes(Strict):
    namespaces: dict[Literal["from"], Literal["All", "Selector", "Same", "None"]]
    kinds: list[Reference]


class Listener(Strict):
    name: str
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP", "UDP"]
    port: Annotated[int, Field(ge=1, le=65535)]
    hostname: str
    tls: ListenerTls
    allowedRoutes: AllowedRoutes


class Infrastructure(Strict):
    annotations: Names = {}
    labels: Names = {}
    parametersRef: Reference


class Gateway(Strict):
    addresses: list[dict[Literal["type", "value"], str]] = []
    gatewayClassName: str
    infrastructure: Infrastructure
    listeners: list[Listener]


class RouteRule(Strict):
    matches: list[dict[Literal["method"], dict[Literal["type", "service", "method"], str]]]
    backendRefs: list[Reference]


class GRPCRoute(Strict):
    parentRefs: list[Reference]
    hostnames: list[str] = []
    rules: list[RouteRule]


class ApiKeyAuth(Strict):
    credentialRefs: list[Reference]
    extractFrom: list[dict[Literal["headers", "params", "cookies"], list[str]]]
    sanitize: bool


class SecurityPolicy(Strict):
    targetRefs: list[Reference]
    apiKeyAuth: ApiKeyAuth


class Retry(Strict):
    numRetries: Count
    retryOn: dict[Literal["triggers", "httpStatusCodes"], list[str]]


class CircuitBreaker(Strict):
    maxConnections: Count
    maxParallelRequests: Count
    maxParallelRetries: Count
    maxPendingRequests: Count


class BackendTrafficPolicy(Strict):
    targetRefs: list[Reference]
    loadBalancer: dict[Literal["type"], Literal["ConsistentHash", "LeastRequest", "Random", "RoundRobin"]]
    timeout: dict[Literal["http"], dict[Literal["requestTimeout", "connectionIdleTimeout"], Duration]]
    retry: Retry
    circuitBreaker: CircuitBreaker


class EnvoyDeployment(Strict):
    replicas: Count
    pod: dict[Literal["topologySpreadConstraints"], list[Core]]


class EnvoyService(Strict):
    annotations: Names = {}
    externalTrafficPolicy: Literal["Cluster", "Local"] = "Local"
    labels: Names = {}
    loadBalancerClass: str = ""
    loadBalancerSourceRanges: list[str] = []
    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = "LoadBalancer"


class EnvoyKubernetes(Strict):
    envoyDeployment: EnvoyDeployment
    envoyPDB: dict[Literal["minAvailable", "maxUnavailable"], Count]
    envoyService: EnvoyService = EnvoyService()


class EnvoyProvider(Strict):
    type: Literal["Kubernetes"]
    kubernetes: EnvoyKubernetes


class EnvoyProxy(Strict):
    shutdown: dict[Literal["drainTimeout", "minDrainDuration"], Duration]
    provider: EnvoyProvider


class Relabeling(Strict):
    sourceLabels: list[str]
    targetLabel: str


class MetricsEndpoint(Strict):
    port: str
    interval: Annotated[str, Field(pattern=r"^\d+(ms|s|m|h)$")]
    relabelings: list[Relabeling]


class PodMonitor(Strict):
    selector: dict[Literal["matchLabels"], Names]
    podMetricsEndpoints: list[MetricsEndpoint]


class Alert(Strict):
    alert: str
    expr: str
    for_: Annotated[str, Field(alias="for")] = ""
    labels: Names
    annotations: Names


class RuleGroup(Strict):
    name: str
    rules: list[Alert]


class PrometheusRule(Strict):
    groups: list[RuleGroup]


KINDS: dict[tuple[str, str], type[Strict]] = {
    ("ray.io/v1", "RayService"): RayService,
    ("gateway.networking.k8s.io/v1", "Gateway"): Gateway,
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): GRPCRoute,
    ("gateway.envoyproxy.io/v1alpha1", "EnvoyProxy"): EnvoyProxy,
    ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy"): SecurityPolicy,
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"): BackendTrafficPolicy,
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
}


def problems(one: Object) -> list[str]:
    """What is wrong with a custom resource; empty where nothing is."""
    found = [f"{key}: unknown field" for key in one if key not in ("apiVersion", "kind", "metadata", "spec")]
    try:
        KINDS[one["apiVersion"], one["kind"]].model_validate(one["spec"])
    except ValidationError as error:
        found += [f"spec.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return found
