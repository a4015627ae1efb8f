from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_RAW: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]
    IMAGE_FORMAT_NONE: _ClassVar[ImageFormat]

class ApplicationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPLICATION_STATE_UNSPECIFIED: _ClassVar[ApplicationState]
    APPLICATION_STATE_RUNNING: _ClassVar[ApplicationState]
    APPLICATION_STATE_DEPLOYING: _ClassVar[ApplicationState]
    APPLICATION_STATE_DEPLOY_FAILED: _ClassVar[ApplicationState]
    APPLICATION_STATE_UNHEALTHY: _ClassVar[ApplicationState]
    APPLICATION_STATE_DELETING: _ClassVar[ApplicationState]
    APPLICATION_STATE_NOT_STARTED: _ClassVar[ApplicationState]
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_RAW: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
IMAGE_FORMAT_NONE: ImageFormat
APPLICATION_STATE_UNSPECIFIED: ApplicationState
APPLICATION_STATE_RUNNING: ApplicationState
APPLICATION_STATE_DEPLOYING: ApplicationState
APPLICATION_STATE_DEPLOY_FAILED: ApplicationState
APPLICATION_STATE_UNHEALTHY: ApplicationState
APPLICATION_STATE_DELETING: ApplicationState
APPLICATION_STATE_NOT_STARTED: ApplicationState

class Tensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("encoded_image", "image", "latent", "factors")
    ENCODED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    encoded_image: bytes
    image: Tensor
    latent: Tensor
    factors: Tensor
    def __init__(self, encoded_image: _Optional[bytes] = ..., image: _Optional[_Union[Tensor, _Mapping]] = ..., latent: _Optional[_Union[Tensor, _Mapping]] = ..., factors: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Images(_message.Message):
    __slots__ = ("encoded", "raw")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    encoded: _containers.RepeatedScalarFieldContainer[bytes]
    raw: Tensor
    def __init__(self, encoded: _Optional[_Iterable[bytes]] = ..., raw: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class InterpretRequest(_message.Message):
    __slots__ = ("inputs", "resize")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    resize: bool
    def __init__(self, inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., resize: _Optional[bool] = ...) -> None: ...

class InterpretResponse(_message.Message):
    __slots__ = ("latents", "factors", "log_likelihoods", "log_likelihood_quantiles", "probabilities", "timing")
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    LOG_LIKELIHOODS_FIELD_NUMBER: _ClassVar[int]
    LOG_LIKELIHOOD_QUANTILES_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    latents: Tensor
    factors: Tensor
    log_likelihoods: _containers.RepeatedScalarFieldContainer[float]
    log_likelihood_quantiles: _containers.RepeatedScalarFieldContainer[float]
    probabilities: Tensor
    timing: Timing
    def __init__(self, latents: _Optional[_Union[Tensor, _Mapping]] = ..., factors: _Optional[_Union[Tensor, _Mapping]] = ..., log_likelihoods: _Optional[_Iterable[float]] = ..., log_likelihood_quantiles: _Optional[_Iterable[float]] = ..., probabilities: _Optional[_Union[Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class EditRequest(_message.Message):
    __slots__ = ("targets", "edits", "format", "resize", "return_latents")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RETURN_LATENTS_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedCompositeFieldContainer[Input]
    edits: _containers.RepeatedCompositeFieldContainer[EditOperation]
    format: ImageFormat
    resize: bool
    return_latents: bool
    def __init__(self, targets: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., edits: _Optional[_Iterable[_Union[EditOperation, _Mapping]]] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., resize: _Optional[bool] = ..., return_latents: _Optional[bool] = ...) -> None: ...

class EditOperation(_message.Message):
    __slots__ = ("factor", "replace", "set", "resample", "shift")
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    RESAMPLE_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    factor: str
    replace: Replace
    set: SetValue
    resample: Resample
    shift: Shift
    def __init__(self, factor: _Optional[str] = ..., replace: _Optional[_Union[Replace, _Mapping]] = ..., set: _Optional[_Union[SetValue, _Mapping]] = ..., resample: _Optional[_Union[Resample, _Mapping]] = ..., shift: _Optional[_Union[Shift, _Mapping]] = ...) -> None: ...

class Replace(_message.Message):
    __slots__ = ("source", "strength")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    source: Input
    strength: float
    def __init__(self, source: _Optional[_Union[Input, _Mapping]] = ..., strength: _Optional[float] = ...) -> None: ...

class SetValue(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Resample(_message.Message):
    __slots__ = ("seed", "temperature")
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    seed: int
    temperature: float
    def __init__(self, seed: _Optional[int] = ..., temperature: _Optional[float] = ...) -> None: ...

class Shift(_message.Message):
    __slots__ = ("direction", "distance")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    direction: _containers.RepeatedScalarFieldContainer[float]
    distance: float
    def __init__(self, direction: _Optional[_Iterable[float]] = ..., distance: _Optional[float] = ...) -> None: ...

class EditResponse(_message.Message):
    __slots__ = ("images", "factors", "timing", "latents", "probabilities")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    images: Images
    factors: Tensor
    timing: Timing
    latents: Tensor
    probabilities: Tensor
    def __init__(self, images: _Optional[_Union[Images, _Mapping]] = ..., factors: _Optional[_Union[Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., latents: _Optional[_Union[Tensor, _Mapping]] = ..., probabilities: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("count", "seed", "temperature", "fixed", "format", "resize", "truncation", "return_latents")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    RETURN_LATENTS_FIELD_NUMBER: _ClassVar[int]
    count: int
    seed: int
    temperature: float
    fixed: _containers.RepeatedCompositeFieldContainer[FixedFactor]
    format: ImageFormat
    resize: bool
    truncation: float
    return_latents: bool
    def __init__(self, count: _Optional[int] = ..., seed: _Optional[int] = ..., temperature: _Optional[float] = ..., fixed: _Optional[_Iterable[_Union[FixedFactor, _Mapping]]] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., resize: _Optional[bool] = ..., truncation: _Optional[float] = ..., return_latents: _Optional[bool] = ...) -> None: ...

class FixedFactor(_message.Message):
    __slots__ = ("factor", "source", "set")
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    factor: str
    source: Input
    set: SetValue
    def __init__(self, factor: _Optional[str] = ..., source: _Optional[_Union[Input, _Mapping]] = ..., set: _Optional[_Union[SetValue, _Mapping]] = ...) -> None: ...

class SampleResponse(_message.Message):
    __slots__ = ("first_index", "images", "factors", "timing", "latents", "probabilities")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    images: Images
    factors: Tensor
    timing: Timing
    latents: Tensor
    probabilities: Tensor
    def __init__(self, first_index: _Optional[int] = ..., images: _Optional[_Union[Images, _Mapping]] = ..., factors: _Optional[_Union[Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., latents: _Optional[_Union[Tensor, _Mapping]] = ..., probabilities: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class InterpretStreamRequest(_message.Message):
    __slots__ = ("item_id", "request")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    request: InterpretRequest
    def __init__(self, item_id: _Optional[str] = ..., request: _Optional[_Union[InterpretRequest, _Mapping]] = ...) -> None: ...

class InterpretStreamResponse(_message.Message):
    __slots__ = ("item_id", "response", "error")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    response: InterpretResponse
    error: ItemError
    def __init__(self, item_id: _Optional[str] = ..., response: _Optional[_Union[InterpretResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class EditStreamRequest(_message.Message):
    __slots__ = ("item_id", "request")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    request: EditRequest
    def __init__(self, item_id: _Optional[str] = ..., request: _Optional[_Union[EditRequest, _Mapping]] = ...) -> None: ...

class EditStreamResponse(_message.Message):
    __slots__ = ("item_id", "response", "error")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    response: EditResponse
    error: ItemError
    def __init__(self, item_id: _Optional[str] = ..., response: _Optional[_Union[EditResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "message", "violations")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    violations: _containers.RepeatedCompositeFieldContainer[FieldViolation]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., violations: _Optional[_Iterable[_Union[FieldViolation, _Mapping]]] = ...) -> None: ...

class FieldViolation(_message.Message):
    __slots__ = ("field", "description")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    field: str
    description: str
    def __init__(self, field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class TraverseRequest(_message.Message):
    __slots__ = ("start", "interpolation", "linear", "random", "frames", "format", "resize", "return_latents")
    START_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    RANDOM_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    RETURN_LATENTS_FIELD_NUMBER: _ClassVar[int]
    start: Input
    interpolation: Interpolation
    linear: LinearWalk
    random: RandomWalk
    frames: int
    format: ImageFormat
    resize: bool
    return_latents: bool
    def __init__(self, start: _Optional[_Union[Input, _Mapping]] = ..., interpolation: _Optional[_Union[Interpolation, _Mapping]] = ..., linear: _Optional[_Union[LinearWalk, _Mapping]] = ..., random: _Optional[_Union[RandomWalk, _Mapping]] = ..., frames: _Optional[int] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., resize: _Optional[bool] = ..., return_latents: _Optional[bool] = ...) -> None: ...

class Interpolation(_message.Message):
    __slots__ = ("destination", "factors")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    destination: Input
    factors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, destination: _Optional[_Union[Input, _Mapping]] = ..., factors: _Optional[_Iterable[str]] = ...) -> None: ...

class LinearWalk(_message.Message):
    __slots__ = ("factor", "direction", "distance")
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    factor: str
    direction: _containers.RepeatedScalarFieldContainer[float]
    distance: float
    def __init__(self, factor: _Optional[str] = ..., direction: _Optional[_Iterable[float]] = ..., distance: _Optional[float] = ...) -> None: ...

class RandomWalk(_message.Message):
    __slots__ = ("factors", "seed", "step", "temperature")
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    factors: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    step: float
    temperature: float
    def __init__(self, factors: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ..., step: _Optional[float] = ..., temperature: _Optional[float] = ...) -> None: ...

class TraverseResponse(_message.Message):
    __slots__ = ("first_index", "images", "factors", "timing", "latents", "probabilities")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    images: Images
    factors: Tensor
    timing: Timing
    latents: Tensor
    probabilities: Tensor
    def __init__(self, first_index: _Optional[int] = ..., images: _Optional[_Union[Images, _Mapping]] = ..., factors: _Optional[_Union[Tensor, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., latents: _Optional[_Union[Tensor, _Mapping]] = ..., probabilities: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class RespondRequest(_message.Message):
    __slots__ = ("inputs", "factors", "draws", "seed", "temperature", "resize")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[Input]
    factors: _containers.RepeatedScalarFieldContainer[str]
    draws: int
    seed: int
    temperature: float
    resize: bool
    def __init__(self, inputs: _Optional[_Iterable[_Union[Input, _Mapping]]] = ..., factors: _Optional[_Iterable[str]] = ..., draws: _Optional[int] = ..., seed: _Optional[int] = ..., temperature: _Optional[float] = ..., resize: _Optional[bool] = ...) -> None: ...

class RespondResponse(_message.Message):
    __slots__ = ("probabilities", "factors", "timing")
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    probabilities: Tensor
    factors: _containers.RepeatedCompositeFieldContainer[FactorResponse]
    timing: Timing
    def __init__(self, probabilities: _Optional[_Union[Tensor, _Mapping]] = ..., factors: _Optional[_Iterable[_Union[FactorResponse, _Mapping]]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class FactorResponse(_message.Message):
    __slots__ = ("factor", "mean_probabilities", "probability_deviations", "class_deviations", "class_changes")
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    MEAN_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_DEVIATIONS_FIELD_NUMBER: _ClassVar[int]
    CLASS_DEVIATIONS_FIELD_NUMBER: _ClassVar[int]
    CLASS_CHANGES_FIELD_NUMBER: _ClassVar[int]
    factor: str
    mean_probabilities: Tensor
    probability_deviations: Tensor
    class_deviations: _containers.RepeatedScalarFieldContainer[float]
    class_changes: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, factor: _Optional[str] = ..., mean_probabilities: _Optional[_Union[Tensor, _Mapping]] = ..., probability_deviations: _Optional[_Union[Tensor, _Mapping]] = ..., class_deviations: _Optional[_Iterable[float]] = ..., class_changes: _Optional[_Iterable[float]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("application", "state", "description")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    application: str
    state: ApplicationState
    description: GetModelResponse
    def __init__(self, application: _Optional[str] = ..., state: _Optional[_Union[ApplicationState, str]] = ..., description: _Optional[_Union[GetModelResponse, _Mapping]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("total_ms", "queue_ms", "codec_ms", "stages")
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    CODEC_MS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    total_ms: float
    queue_ms: float
    codec_ms: float
    stages: _containers.RepeatedCompositeFieldContainer[StageTiming]
    def __init__(self, total_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., codec_ms: _Optional[float] = ..., stages: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "queue_ms", "compute_ms", "batch_size")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    stage: str
    queue_ms: float
    compute_ms: float
    batch_size: int
    def __init__(self, stage: _Optional[str] = ..., queue_ms: _Optional[float] = ..., compute_ms: _Optional[float] = ..., batch_size: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "limits")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    model: Model
    limits: Limits
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "family", "image", "latent_shape", "factors", "log_likelihood_quantiles", "evaluation", "round_trip_error", "graphs", "recipe", "data_set", "created")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    LOG_LIKELIHOOD_QUANTILES_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_ERROR_FIELD_NUMBER: _ClassVar[int]
    GRAPHS_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATA_SET_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    family: str
    image: ImageSpec
    latent_shape: _containers.RepeatedScalarFieldContainer[int]
    factors: _containers.RepeatedCompositeFieldContainer[Factor]
    log_likelihood_quantiles: _containers.RepeatedCompositeFieldContainer[Quantile]
    evaluation: _containers.RepeatedCompositeFieldContainer[Figure]
    round_trip_error: float
    graphs: _containers.RepeatedCompositeFieldContainer[Graph]
    recipe: str
    data_set: str
    created: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., family: _Optional[str] = ..., image: _Optional[_Union[ImageSpec, _Mapping]] = ..., latent_shape: _Optional[_Iterable[int]] = ..., factors: _Optional[_Iterable[_Union[Factor, _Mapping]]] = ..., log_likelihood_quantiles: _Optional[_Iterable[_Union[Quantile, _Mapping]]] = ..., evaluation: _Optional[_Iterable[_Union[Figure, _Mapping]]] = ..., round_trip_error: _Optional[float] = ..., graphs: _Optional[_Iterable[_Union[Graph, _Mapping]]] = ..., recipe: _Optional[str] = ..., data_set: _Optional[str] = ..., created: _Optional[str] = ...) -> None: ...

class ImageSpec(_message.Message):
    __slots__ = ("channels", "height", "width", "minimum", "maximum")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    channels: int
    height: int
    width: int
    minimum: float
    maximum: float
    def __init__(self, channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class Factor(_message.Message):
    __slots__ = ("name", "start", "size")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    start: int
    size: int
    def __init__(self, name: _Optional[str] = ..., start: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Quantile(_message.Message):
    __slots__ = ("probability", "value")
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    probability: float
    value: float
    def __init__(self, probability: _Optional[float] = ..., value: _Optional[float] = ...) -> None: ...

class Figure(_message.Message):
    __slots__ = ("name", "value", "ceiling", "floor", "meaning")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CEILING_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    ceiling: float
    floor: float
    meaning: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., ceiling: _Optional[float] = ..., floor: _Optional[float] = ..., meaning: _Optional[str] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("role", "sha256", "bytes")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    role: str
    sha256: str
    bytes: int
    def __init__(self, role: _Optional[str] = ..., sha256: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_items", "max_samples", "max_edits", "max_image_pixels", "max_message_bytes", "max_batch_size", "max_queued_items", "stream_window", "samples_per_message")
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MAX_EDITS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    STREAM_WINDOW_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    max_items: int
    max_samples: int
    max_edits: int
    max_image_pixels: int
    max_message_bytes: int
    max_batch_size: int
    max_queued_items: int
    stream_window: int
    samples_per_message: int
    def __init__(self, max_items: _Optional[int] = ..., max_samples: _Optional[int] = ..., max_edits: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., max_queued_items: _Optional[int] = ..., stream_window: _Optional[int] = ..., samples_per_message: _Optional[int] = ...) -> None: ...
