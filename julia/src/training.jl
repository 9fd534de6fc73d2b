"Flux's function for every loss name. All take outputs and targets (O, n); the last two take logits."
const LOSSES = Dict{String,Function}(
    "mse" => Flux.mse,
    "cross_entropy" => Flux.logitcrossentropy,
    "binary_cross_entropy" => Flux.logitbinarycrossentropy,
)

# Behind `logsoftmax` the loss is right: the softmax of log-probabilities gives the probabilities.
"What a chain must not end in, for losses that apply softmax or sigmoid themselves, and the loss of probabilities."
const OF_LOGITS = IdDict{Any,Any}(
    Flux.logitcrossentropy => (Any[NNlib.softmax], Flux.crossentropy),
    Flux.logitbinarycrossentropy =>
        (Any[NNlib.softmax, NNlib.logsoftmax, NNlib.sigmoid, NNlib.sigmoid_fast], Flux.binarycrossentropy),
)

"refuse a loss that would apply softmax or sigmoid a second time, without a word"
function check_loss(loss, @nospecialize(chain))
    haskey(OF_LOGITS, loss) || return nothing
    refused, remedy = OF_LOGITS[loss]
    ending = ending_of(chain)
    any(f -> f === ending, refused) || return nothing
    throw(ArgumentError("the loss $(nameof(loss)) applies $(loss === Flux.logitcrossentropy ? "softmax" : "sigmoid") itself, and \
        the network ends in $ending; take that away, so that it makes logits, or use $(nameof(remedy))"))
end

"the function that a network ends in"
ending_of(@nospecialize(layer)) = layer
ending_of(@nospecialize(chain::Chain)) = ending_of(Any[chain.layers...][end])
ending_of(layer::Union{Dense,Convolution}) = layer.σ
ending_of(layer::Activation) = layer.f

"the number of samples that targets are for"
count_samples(Y::AbstractMatrix) = size(Y, 2)

"the loss of that name (`weight` is that of slopes, for \"sobolev\" alone); `ArgumentError` if there is none"
function loss_function(name::AbstractString, weight::Real=1)
    name == "sobolev" && return Sobolev(weight)
    haskey(LOSSES, name) && return LOSSES[name]
    known = sort!([collect(keys(LOSSES)); "sobolev"])
    throw(ArgumentError("unknown loss \"$name\"; known: $(join(known, ", "))"))
end

"""
    optimiser(name, settings) -> rule

The Flux rule of that name (`:sgd`, `:momentum`, `:torch_momentum`, `:nesterov`, `:adam`, `:adamw`, `:rmsprop`) with a
learning rate of 1. `settings` holds `"momentum"`, `"beta1"`, `"beta2"`, `"rho"`, `"eps"`, `"weight_decay"`, as far as the
rule has them.

# Errors
`ArgumentError` for a name that is not among these.
"""
optimiser(name::Symbol, settings::AbstractDict) = optimiser(Val(name), settings)
optimiser(::Val{:sgd}, s) = decayed(Flux.Descent(1.0), s)
optimiser(::Val{:momentum}, s) = decayed(Flux.Momentum(1.0, s["momentum"]), s)
optimiser(::Val{:torch_momentum}, s) = decayed(GradientMomentum(1.0, s["momentum"]), s)
optimiser(::Val{:nesterov}, s) = decayed(Flux.Nesterov(1.0, s["momentum"]), s)
optimiser(::Val{:adam}, s) = decayed(Flux.Adam(1.0, (s["beta1"], s["beta2"]), s["eps"]), s)
optimiser(::Val{:adamw}, s) = Flux.AdamW(1.0, (s["beta1"], s["beta2"]), s["weight_decay"], s["eps"])
optimiser(::Val{:rmsprop}, s) = decayed(Flux.RMSProp(1.0, s["rho"], s["eps"]), s)
optimiser(::Val{name}, s) where {name} = throw(ArgumentError("unknown optimiser :$name"))

"""
    GradientMomentum(eta, rho)

Momentum as PyTorch's SGD defines it: v = rho v + gradient, and a step of eta v. Flux's `Momentum` remembers steps, each
with the rate of its time; the two differ once the rate changes.
"""
struct GradientMomentum <: Flux.Optimisers.AbstractRule
    eta::Float64
    rho::Float64
end

Flux.Optimisers.init(::GradientMomentum, x::AbstractArray) = zero(x)
function Flux.Optimisers.apply!(rule::GradientMomentum, velocity, x::AbstractArray{T}, gradient) where {T}
    eta, rho = T(rule.eta), T(rule.rho)
    @. velocity = rho * velocity + gradient
    return velocity, @. eta * velocity
end

"the rule with weight_decay * parameter added to its gradients"
function decayed(rule, settings)
    decay = settings["weight_decay"]
    return iszero(decay) ? rule : Flux.OptimiserChain(Flux.WeightDecay(decay), rule)
end

"""
    Training(model, X, Y, loss; optimiser, rates, clip_norm = nothing)

A training in progress, in inference mode. The arrays of the model, which may be a [`UDLBridge.Graph`](@ref), are trained in
place.

- `X` (D..., n), `Y` (O, n): all samples and targets.
- `loss`: a function of outputs and targets, as `Flux.mse`; or [`Sobolev`](@ref), with `Y` of type [`Observed`](@ref).
- `optimiser`: a rule, as of [`optimiser`](@ref); its own learning rate is replaced.
- `rates`: a learning rate for each parameter, in the order of [`parameters`](@ref), or one number for all.
- `clip_norm`: gradients are multiplied by min(1, clip_norm / their norm over all parameters together).

# Errors
`DimensionMismatch` where samples and targets, or rates and parameters, differ in number; `ArgumentError` for a loss of logits
(`Flux.logitcrossentropy`) of a chain that ends in `softmax`, and for what [`inference`](@ref) refuses.
"""
mutable struct Training{A<:AbstractArray,B<:Union{AbstractMatrix,Observed},L}
    const chain::Any # or a graph; of no one type: what trains it is compiled once, and not for every network
    const own::Vector{Parameter} # in their order; the optimiser's leaves likewise
    const optimiser_leaves::Vector{Flux.Optimisers.Leaf}
    const X::A
    const Y::B
    const loss::L
    const rates::Vector{Float64}
    const clip_norm::Union{Nothing,Float64}
    const see::Gradients
    step::Int
end

function Training(@nospecialize(model), X::AbstractArray, Y, loss; optimiser, rates, clip_norm=nothing)
    # In inference mode, with the arrays of the model: these are what is trained.
    chain, X = ready(model, X)
    own = trained(chain)
    rates = rates isa Real ? fill(rates, length(own)) : rates
    size(X, ndims(X)) == count_samples(Y) ||
        throw(DimensionMismatch("$(size(X, ndims(X))) samples, but $(count_samples(Y)) targets"))
    length(rates) == length(own) ||
        throw(DimensionMismatch("$(length(rates)) rates, but $(length(own)) parameters"))
    check_loss(loss, chain)
    # Not by `Flux.setup`, which looks into views and transposes for the array behind them.
    optimised = Flux.Optimisers.Leaf[optimiser_leaf(optimiser, p, Float64(rate)) for (p, rate) in zip(own, rates)]
    return Training(chain, own, optimised, X, Y, loss, collect(Float64, rates), clip_norm, Gradients(), 0)
end

"a parameter's rule, whose rate has the type of all later ones, and its state"
function optimiser_leaf(optimiser, p::Parameter, rate::Float64)
    return Flux.Optimisers.Leaf(Flux.Optimisers.adjust(optimiser, rate), Flux.Optimisers.init(optimiser, value(p.leaf)))
end

"""
    epoch!(training, order, batch_size, factor = 1) -> losses

Train on the samples `order`, in batches of `batch_size`; the last may be smaller. Learning rates are multiplied by
`factor`. Returns the loss of each batch before its step. A loss that is not finite ends the epoch: its step is not made.
"""
function epoch!(t::Training, order::AbstractVector{<:Integer}, batch_size::Integer, factor::Real=1)
    for (leaf, rate) in zip(t.optimiser_leaves, t.rates)
        Flux.adjust!(leaf, rate * factor)
    end
    losses = Float64[]
    sizehint!(losses, cld(length(order), batch_size))
    for batch in Iterators.partition(order, batch_size)
        loss = step!(t, gather(t.X, batch), gather(t.Y, batch))
        push!(losses, loss)
        isfinite(loss) || break
    end
    return losses
end

"one step on one batch, unless its loss is not finite; returns the loss before it"
function step!(t::Training, x::AbstractArray, y)
    loss, gradients = value_and_gradient(t.loss, t.chain, x, y; t.own, t.see)
    isfinite(loss) || return Float64(loss)
    for (state, p, g) in zip(t.optimiser_leaves, t.own, clip(gradients, t.clip_norm))
        array = value(p.leaf)
        _, moved = Flux.Optimisers.update!(state, array, g)
        moved === array || copyto!(array, moved) # Optimisers writes into dense arrays, and makes others anew
    end
    t.step += 1
    return Float64(loss)
end

"the samples of a batch, copied"
gather(X::AbstractArray{T,N}, batch) where {T,N} = X[ntuple(_ -> Colon(), Val(N - 1))..., batch]

"""
    value_and_gradient(loss, chain, x, y; own, see) -> (value, gradients)

The loss of a batch, and its gradients in the order of [`parameters`](@ref). Who asks again and again keeps the chain's `own`
parameters, and `see`.
"""
function value_and_gradient(loss, @nospecialize(chain::Chain), x::AbstractArray, y; own=trained(chain), see=Gradients())
    f, chain_back = observed_pullback(chain, x, see)
    found, (slope,) = Flux.withgradient(f -> loss(f, y), f)
    return found, [filled(g, value(p.leaf)) for (p, g) in zip(own, gradients!(see, chain_back, slope, own))]
end

"the gradients times min(1, limit / their norm together); `nothing` leaves them as they are"
clip(gradients, ::Nothing) = gradients
function clip(gradients, limit::Real)
    norm = sqrt(sum(g -> Float64(sum(abs2, g)), gradients))
    return norm > limit ? [g .* eltype(g)(limit / norm) for g in gradients] : gradients
end

"""
    slots(rule, state) -> NamedTuple

What a rule remembers of one parameter, under the names of `udlbridge`. Flux's Nesterov keeps the velocity with the
opposite sign. [`remember`](@ref) is the inverse.
"""
slots(::Flux.Descent, state) = (;)
slots(::Union{Flux.Momentum,GradientMomentum}, state) = (; velocity=state)
slots(::Flux.Nesterov, state) = (; velocity=(-state))
slots(::Union{Flux.Adam,Flux.AdamW}, state) = (; first=state[1], second=state[2])
slots(::Flux.RMSProp, state) = (; second=state[1])
slots(chained::Flux.OptimiserChain, state) = slots(last(chained.opts), last(state))

"""
    remember(rule, state, slots, step) -> state

The state of a rule after `step` steps, of the type of `state`, from its slots. The powers of Adam's decay rates are
built up by one product a step, as its steps do, so that a resumed run is equal bit for bit.
"""
remember(::Flux.Descent, state, slots, step) = state
remember(::Union{Flux.Momentum,GradientMomentum}, state, slots, step) = slots.velocity
remember(::Flux.Nesterov, state, slots, step) = -slots.velocity
remember(::Flux.RMSProp, state, slots, step) = (slots.second, state[2])
function remember(rule::Union{Flux.Adam,Flux.AdamW}, state, slots, step)
    beta = oftype(state[3], rule.beta)
    return (slots.first, slots.second, foldl((powers, _) -> powers .* beta, 1:step; init=beta))
end
function remember(chained::Flux.OptimiserChain, state, slots, step)
    return (Base.front(state)..., remember(last(chained.opts), last(state), slots, step))
end

"""
    resume!(training, slots, step)

Go on after `step` steps. `slots`: for each parameter, in the order of [`parameters`](@ref), a NamedTuple of arrays.
"""
function resume!(t::Training, slots::AbstractVector, step::Integer)
    for (leaf, own) in zip(t.optimiser_leaves, slots)
        leaf.state = remember(leaf.rule, leaf.state, own, step)
    end
    t.step = step
    return t
end

"""
    loss_gradient(loss, model, X, Y) -> (loss, gradients)

The mean loss of a batch in inference mode and its derivatives, in the order of [`parameters`](@ref), in Flux's layout.

# Errors
`ArgumentError` where there is no sample, and for what [`inference`](@ref) refuses.
"""
function loss_gradient(loss, @nospecialize(model), X::AbstractArray, Y)
    chain, X = ready(model, X)
    return value_and_gradient(loss, chain, X, Y)
end
