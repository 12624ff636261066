"""MLServer's custom runtime: the codec for arrays on both sides, as its guide shows."""

from graph import OUTPUTS, Graph
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    """A model of the inference protocol."""

    async def load(self) -> bool:
        """In the process that infers."""
        self.graph = Graph()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Both outputs of the graph."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        found = zip(OUTPUTS, self.graph.run(rows), strict=True)
        return InferenceResponse(
            model_name=self.name,
            id=payload.id,
            outputs=[NumpyCodec.encode_output(name, output) for name, output in found],
        )
