# Models of Lux, and all that LuxCore's interface says is one: their parameters and state are given beside them.
module UDLBridgeLuxCoreExt

using LuxCore: LuxCore, AbstractLuxLayer, StatefulLuxLayer
using UDLBridge: UDLBridge, Explicit, input_hessian, input_jacobian, jacobian, network, ntk, outputs, parameters, pull, push

function UDLBridge.network(model::AbstractLuxLayer, ps, st)
    ps isa NamedTuple ||
        throw(ArgumentError("ps is a $(typeof(ps)); allowed: a NamedTuple of arrays, as Lux.setup(rng, model) makes it"))
    for layer in UDLBridge.parts!(Any[], Base.IdSet{Any}(), model)
        UDLBridge.has_mode(layer) && layer.active !== false && throw(ArgumentError("the model has a \
            $(nameof(typeof(layer))) of Flux inside, whose mode Lux does not set; allowed: Flux.testmode! of it first"))
    end
    return Explicit(model, ps, LuxCore.testmode(st))
end

UDLBridge.has_mode(::AbstractLuxLayer) = false

function UDLBridge.as_chain(model::AbstractLuxLayer)
    throw(ArgumentError("a $(nameof(typeof(model))) of Lux has neither parameters nor state; allowed: (model, ps, st, X), or \
        UDLBridge.network(model, ps, st)"))
end
UDLBridge.whole_model((model, ps, st)::Tuple{AbstractLuxLayer,Any,Any}) = network(model, ps, st)
UDLBridge.as_chain(s::StatefulLuxLayer) = UDLBridge.as_chain(network(s.model, s.ps, something(s.st, s.st_any)))

function UDLBridge.ntk(model::AbstractLuxLayer, ps, st, X::AbstractArray, X2=nothing; options...)
    return ntk(network(model, ps, st), X, X2; options...)
end

UDLBridge.parameters(model::AbstractLuxLayer, ps, st) = parameters(network(model, ps, st))
UDLBridge.outputs(model::AbstractLuxLayer, ps, st, X::AbstractArray) = outputs(network(model, ps, st), X)
UDLBridge.jacobian(model::AbstractLuxLayer, ps, st, X::AbstractArray) = jacobian(network(model, ps, st), X)
UDLBridge.input_jacobian(model::AbstractLuxLayer, ps, st, X::AbstractArray) = input_jacobian(network(model, ps, st), X)
UDLBridge.input_hessian(model::AbstractLuxLayer, ps, st, X::AbstractArray) = input_hessian(network(model, ps, st), X)

function UDLBridge.pull(model::AbstractLuxLayer, ps, st, X::AbstractArray, C::AbstractMatrix)
    return pull(network(model, ps, st), X, C)
end

function UDLBridge.push(model::AbstractLuxLayer, ps, st, X::AbstractArray, direction::AbstractVector, C::AbstractMatrix)
    return push(network(model, ps, st), X, direction, C)
end

end
